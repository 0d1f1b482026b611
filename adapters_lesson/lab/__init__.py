"""The widgets: thin views over the package's functions. A knob is turned, a plain function draws, the view shows it."""
