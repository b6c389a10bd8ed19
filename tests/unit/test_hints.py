"""Each proposal in a message has a test that follows it."""

from __future__ import annotations

from tests.support.hints import ROOT, followed_texts, proposals

#: Modules whose proposals one test follows as a whole.
MODULES = {"_api/other_words.py": "tests/docs/test_words.py"}

#: Texts of proposals that older tests follow.
TESTS = {
    "to_lake() was called inside a Dask task.": "tests/integration/test_schedulers.py::test_write_inside_a_task_is_refused",
    "Continue it with mode='resume'.": "tests/fault/test_cluster_ends.py::test_restarted_cluster_loses_the_run",
    "give another run=": "tests/unit/_api/test_eval_words.py::test_another_input_takes_another_run",
    "another run=": "tests/unit/_api/test_eval_words.py::test_another_input_takes_another_run",
    "dasklake.empty(url, overwrite=True)": "tests/integration/test_hints_of_calls.py::test_tensors_and_lakes_that_exist_are_replaced",
    "Use a smaller index; Tensor.shapes() has": "tests/integration/test_hints_of_calls.py::test_shapes_are_listed",
    "Name credentials with dasklake.link(url, creds_key=...)": "tests/unit/_links/test_verify.py::test_denied_access_without_a_key_suggests_one",
    "Raise the limit with links=dasklake.LinkPolicy(max_bytes=...)": "tests/integration/test_broken_links.py::test_the_remedy_for_long_streams_works",
    "give more with links=dasklake.LinkPolicy(timeout=..., retries=...)": "tests/integration/test_broken_links.py::test_streams_without_end",
    "older versions stay readable: dasklake.open(url, version=": "tests/integration/test_damaged_head.py::test_older_versions_open",
    "Leave the tensor out with columns=.": "tests/integration/test_exports.py::test_times_in_sequences_are_refused_by_tar_files",
    "Leave one of their tensors out with columns=.": "tests/integration/test_exports.py::test_members_of_one_name_are_refused",
    "A run that has begun is continued with mode='resume'.": "tests/integration/test_futures.py::test_results_that_are_gone",
    "run again with mode='resume', run={run!r}.": "tests/integration/test_futures.py::test_futures_that_were_dropped",
    "or use coordinator='client'.": "tests/fault/test_not_shared.py::test_memory_is_not_shared_by_processes",
    "Continue the run with its whole input instead: mode='resume', run=": "tests/fault/test_commit_order.py::test_eval_is_in_the_order_of_the_input",
    " (in eval(): run=": "tests/fault/test_commit_order.py::test_eval_is_in_the_order_of_the_input",
    "Committed samples are kept. Run again with mode='resume'": "tests/fault/test_cluster_ends.py::test_killed_scheduler_loses_the_run",
    ", run=": "tests/fault/test_cluster_ends.py::test_killed_scheduler_loses_the_run",
    "or single_writer=True if there is only one writer.": "tests/unit/_storage/test_local_backend.py::test_no_hard_links",
    "(options=dasklake.WriteOptions(scheduler=client))": "tests/integration/test_futures.py::test_local_schedulers",
    "pass it as transform_kwargs={": "tests/integration/test_futures.py::test_bound_futures",
    "dask.config.set({'dataframe.convert-string': False})": "tests/integration/test_column_hints.py::test_columns_that_dask_converted_are_kept_as_the_error_says",
    ", na_action='ignore', meta=(": "tests/integration/test_column_hints.py::test_the_proposed_schema_fits_the_column",
    "frame = frame.reset_index()": "tests/integration/test_column_hints.py::test_the_proposed_schema_keeps_the_index",
    ", index=": "tests/integration/test_column_hints.py::test_the_proposed_schema_keeps_the_index",
    ", class_names=": "tests/integration/test_frame_index.py::test_ordered_categories_are_restored",
    ", ordered=True)": "tests/integration/test_frame_index.py::test_ordered_categories_are_restored",
    "on_broken='drop' to leave these records out": "tests/unit/sources/test_coco_broken.py::test_repeated_and_broken_records",
    "on_repeated='first' to keep the first of equal records": "tests/unit/sources/test_coco_broken.py::test_repeated_and_broken_records",
    "on_unsegmented='empty' to give annotations empty masks": "tests/unit/sources/test_coco_broken.py::test_unsegmented_and_infinite_boxes",
    ". Pass compression=": "tests/integration/test_coco_kinds.py::test_formats",
    "Pass compression='png' to convert the others without loss, or images='link'.": "tests/integration/test_coco_kinds.py::test_several_formats",
    ", or allow any shape: Schema.infer(samples, tensors={": "tests/unit/_schema/test_infer.py::test_conflicts_name_sample_and_tensor_and_their_remedy_works",
    ", or store documents: Schema.infer(samples, tensors={": "tests/unit/_schema/test_infer.py::test_conflicts_name_sample_and_tensor_and_their_remedy_works",
    "Examine more of them with limit=, or give its spec: Schema.infer(samples, tensors={": "tests/unit/_schema/test_infer.py::test_a_bounded_number_of_samples_is_examined",
    ": Schema.infer(samples, tensors={": "tests/unit/_schema/test_infer.py::test_given_specs_are_not_inferred",
    "Use dask_geopandas.from_geopandas(frame, npartitions=4).": "tests/integration/test_geopandas.py::test_other_geometries_are_refused_with_a_remedy",
    "Use series.to_frame('geometry').": "tests/integration/test_geopandas.py::test_other_geometries_are_refused_with_a_remedy",
    "use geopandas.GeoSeries.from_wkb(frame[": "tests/integration/test_geopandas.py::test_a_reference_system_is_named",
    "].to_numpy(object, na_value=None), frame.index, crs=": "tests/integration/test_geopandas.py::test_a_reference_system_is_named",
    "Add one with dataset.assign(...) or dataset.expand_dims(...).": "tests/integration/test_xarray.py::test_inputs_that_are_not_certain_are_refused",
    "Use array.to_dataset(name=": "tests/integration/test_xarray.py::test_inputs_that_are_not_certain_are_refused",
    "Leave them out with dataset.drop_vars(": "tests/integration/test_xarray.py::test_inputs_that_are_not_certain_are_refused",
    "), or give another dimension with dim=.": "tests/integration/test_xarray.py::test_another_dimension_is_named",
    "Use dataset.chunk({": "tests/integration/test_xarray.py::test_inputs_that_are_not_certain_are_refused",
    "to workers that eval(num_workers=...) starts.": "tests/integration/test_populated_creds.py::test_workers_of_eval_have_the_values_of_the_client",
    "Call state_after(batches) with the number": "tests/unit/torch/test_dataset.py::test_a_stopped_epoch_continues_with_one_integer",
    "Use layout='HWC': DetectionCollate": "tests/unit/torch/test_detection.py::test_images_have_their_channels_last",
}

#: Texts that have code but propose nothing: names of arguments in descriptions, and representations.
DESCRIPTIONS = (
    "lake.failures() has the failures that were committed.",
    "What populate_creds() sets is known to the process that called it,",
    "Storage option, such as anon=true;",
    " is not of the form NAME=VALUE.",
    ", version=",
    "View of Lake(",
    "popitem(): dictionary is empty",
    " attempt(s), the last one",
    "on_error='skip' would skip the whole partition.",
    "), and needs verify=False",
    " must be True or False, and False with verify=False, got ",
    "an object() is identified only",
    "quick=True reads no data",
)

#: Proposals that no test follows yet, because their situation is rare. Add no others.
OPEN = (
    "Replace the file, or skip the sample with on_error='skip'.",
    "get it undecoded with .bytes().",
    "get the file undecoded with link.bytes().",
    "Get them with .bytes().",
    "np.dstack([array[:, :, 0]] * 3)",
    "Fix the file, or set exif='keep' in the TensorSpec.",
    "Convert it to an array with np.asarray(image), or use compression='png'.",
    "Read it with dtype='float64', or fix the file.",
    "Give a smaller blocksize=.",
    " as in the frame's metadata. Pass meta=... to the operation that made it.",
    "lake.failures() lists the failures.",
)


def test_each_proposal_has_a_test_that_follows_it() -> None:
    """A message may only propose what a test has tried: decorate the test with ``follows``."""
    texts = [*followed_texts(), *TESTS, *DESCRIPTIONS, *OPEN]
    open_ = []
    for proposal in proposals():
        if proposal.path in MODULES:
            continue
        spans = [
            (start, start + len(text))
            for text in texts
            for start in range(len(proposal.text))
            if proposal.text.startswith(text, start)
        ]
        if not any(start <= proposal.start and proposal.stop <= stop for start, stop in spans):
            open_.append(f"{proposal.path}:{proposal.line}: {proposal.code}  in: {proposal.text}")
    assert open_ == []


def test_the_tests_of_other_proposals_exist() -> None:
    """The files that the table names exist, and have the tests."""
    for place in [*MODULES.values(), *TESTS.values()]:
        path, _, test = place.partition("::")
        assert f"def {test}" in (ROOT / path).read_text(), place


def test_the_tables_have_no_text_that_the_package_lost() -> None:
    """A text of the tables is still a text of the package."""
    texts = {proposal.text for proposal in proposals()}
    lost = [t for t in (*TESTS, *DESCRIPTIONS, *OPEN) if not any(t in text for text in texts)]
    assert lost == []
