import sys, os, time, tempfile, logging, faulthandler, threading
from pathlib import Path
import dask, dask.bag as db
from distributed import Client, LocalCluster
import dasklake
from dasklake.exceptions import *
from tests.support._work import SCHEMA, content, note
LIMIT=float(sys.argv[1]); SEED=int(sys.argv[2])
def hanging(x, folder, hang):
    note(folder, str(x))
    first = Path(folder, f"{x}.hung")
    if x in hang and not first.exists():
        first.touch()
        while True: time.sleep(1)
    return content(x)
if __name__=="__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s", filename=sys.argv[3])
    d=tempfile.mkdtemp(); 
    with dask.config.set({"temporary-directory":d, "logging.distributed":"info"}), LocalCluster(n_workers=2,threads_per_worker=1,dashboard_address=None,memory_limit=1_000_000_000,preload=["tests.support._work"], silence_logs=False) as c, Client(c,set_as_default=False) as cl:
        for i in range(3):
            f=Path(d,f"s{i}"); f.mkdir()
            t=time.time(); out=[]
            def call():
                try:
                    out.append(dasklake.to_lake(db.from_sequence(range(60),npartitions=20), str(f/"lake"), schema=SCHEMA, transform=hanging, transform_kwargs={"folder":str(f),"hang":[31,34]}, checkpoint_every=9, run="job", options=dasklake.WriteOptions(scheduler=cl, partition_timeout=LIMIT, retries=1)))
                except BaseException as e: out.append(e)
            th=threading.Thread(target=call,daemon=True); th.start(); th.join(60)
            print(i, round(time.time()-t,1), repr(out)[:300], len(c.scheduler.workers), {n:(w.status.name, w.process and w.process.status.name) for n,w in c.workers.items()}, flush=True)
            if not out: 
                print({k:(t.state,t.suspicious) for k,t in c.scheduler.tasks.items()}); os._exit(3)
            if len(c.scheduler.workers)<2:
                try: cl.wait_for_workers(2,timeout=30)
                except Exception as e: print("WORKERS LOST",e,flush=True); os._exit(4)
