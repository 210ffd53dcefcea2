"""What records inside a worker: times and memory."""
