"Package metadata comes from settings.ini; data and tiny checkpoints travel inside the wheel."
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

config = ConfigParser(delimiters=["="], interpolation=None)
config.read("settings.ini", encoding="utf-8")
cfg = config["DEFAULT"]
ending = "_requirements"
extras = {key.removesuffix(ending): cfg[key].split() for key in cfg if key.endswith(ending)}
shipped = [str(p.relative_to("data")) for p in Path("data").rglob("*") if p.is_file()]

setup(
    name=cfg["lib_name"], version=cfg["version"], description=cfg["description"],
    keywords=cfg["keywords"], author=cfg["author"], author_email=cfg["author_email"],
    license="Apache-2.0", long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    packages=[*find_packages(include=["course_lib", "course_lib.*"]), "course_lib.shipped"],
    package_dir={"course_lib.shipped": "data"}, package_data={"course_lib.shipped": shipped},
    install_requires=cfg["requirements"].split(), extras_require=extras,
    python_requires=">=" + cfg["min_python"],
    entry_points={"console_scripts": cfg["console_scripts"].split()},
)
