"""What understudy costs, measured against the usual distillation loop: ``python -m benchmarks``, see README.md here."""
