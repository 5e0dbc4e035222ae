"""What measurements on a CUDA card have of their own: waiting, memory, peers."""
