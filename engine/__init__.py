"""Machinery that is not a stage."""
import os

# OpenBLAS's threads go on spinning for some 25 ms after a product, on the cores that the threads of
# recurrent.c and winograd.c want next: an LSTM trains at 70 % of its speed then. It reads this, a
# power of two of cycles, when NumPy is loaded, so scripts import from here before NumPy.
os.environ.setdefault('OPENBLAS_THREAD_TIMEOUT', '10')
