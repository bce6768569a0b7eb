"""What is minimised, in NumPy alone: the kernel, the penalty, the sums over a chunk."""
