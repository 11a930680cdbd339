"""The Triton kernels, one a file, and the set that hands them to the blocks.

Nothing else imports this package but `kernel_set.kernel_set_for`, where there is a GPU and triton.
"""
