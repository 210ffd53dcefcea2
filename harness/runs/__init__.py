"""Run folders: what was planned and what has been computed; several made one."""
