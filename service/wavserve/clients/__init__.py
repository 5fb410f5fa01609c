"""Robot clients: the code that runs on the robot. No torch and no server code."""
