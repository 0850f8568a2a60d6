"""Networks to compare with ``resnet``, a file each, under the contract of `sciresdiff.nets`."""
