"""What is measured on a model: accuracy, activations, ACM, and the verdict."""
