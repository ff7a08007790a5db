"""What several test files share: child processes, calls of every public method, images of a folder."""
