"""From rows of a file to packed batches on the device."""
