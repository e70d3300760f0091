"""The image and the compose files as they are, on three machines that are containers: root and podman are needed."""
