"""What runs jobs. Imported by nothing but `Server.start()` and the command line: a producer loads none of it."""
