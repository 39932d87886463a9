"""An application with one package."""

import itsdangerous

print(itsdangerous.__file__)
