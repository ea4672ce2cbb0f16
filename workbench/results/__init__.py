"""What a finished run says: read from its folder, without anything that could compute one."""
