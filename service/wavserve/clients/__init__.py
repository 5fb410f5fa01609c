"""Robot clients: what runs on the robot's side of the wire, without torch and without server code."""
