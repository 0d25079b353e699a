"""The GGUF file format: what a file declares and its tensors, read with every size checked, and written."""
