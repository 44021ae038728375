"""`python3 -m local`. Any installed Python must be able to parse it, so it uses no syntax newer than 3.6."""

import sys

from local.newer_python import require_newer_python

if __name__ == "__main__":
    require_newer_python("local")
    from local.bootstrap import main

    sys.exit(main(sys.argv[1:]))
