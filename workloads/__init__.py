"""What is computed: models, requests, batches, operators and their graphs. No hardware."""
