"""What it runs on: devices, links and systems. No workload."""
