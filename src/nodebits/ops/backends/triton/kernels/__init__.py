"""What runs on the device: functions in Triton's language, without annotations it does not know."""
