"""`python -m mlrm` is the binary."""
import subprocess
import sys

from mlrm import binary

if __name__ == "__main__":
    sys.exit(subprocess.run([binary(), *sys.argv[1:]]).returncode)
