"""What a worker does when operators have said something to the fleet."""
