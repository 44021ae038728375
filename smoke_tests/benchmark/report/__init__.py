"""Records as one HTML page that needs nothing but itself: no script, no font, no request to anywhere."""
