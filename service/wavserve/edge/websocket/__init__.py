"""The websocket edge: openpi's protocol on the HTTP port."""
