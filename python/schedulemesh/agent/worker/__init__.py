"""What runs in Ray workers on behalf of the agent. Shipped there by value: nothing is installed.

Modules of this package import the standard library, Ray and each other, nothing else, and keep no
state in globals: each shipping makes a copy of them.
"""
