"""What users call: functions, the handle of a lake, and the command line."""
