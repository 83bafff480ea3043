"""First stages of training on the poisoned images, whose weights methods start from."""
