"""understudy: turns a big PyTorch teacher into a small student that can be deployed."""

__version__ = "0.1.0"
