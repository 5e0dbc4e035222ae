"""What executes the operators: a folder per device, found through torch's dispatcher."""
