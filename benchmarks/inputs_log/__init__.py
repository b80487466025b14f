"""What the commands say of files and values that are not as they should be, as they say it now: docs/inputs_log.md."""
