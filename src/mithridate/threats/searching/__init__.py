"""What evasions share: losses, balls, searches, batches, and the way into other packages. No file here is a method."""
