"""Published import paths of the multi-cluster interface. The code is in `schedulemesh`."""
