"""An answer on its way to the screen."""
