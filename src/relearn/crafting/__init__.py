"""What poisons are made with: context, gradient steps, and the application of a perturbation."""
