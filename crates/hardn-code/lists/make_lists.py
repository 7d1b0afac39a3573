"""Writes the lists that an installed toolchain knows: Python's, Node's and Java's standard libraries, and what the headers of C declare.

    python3 make_lists.py           (needs python3, node, java, gcc; the other lists are kept by hand)

Made with Python 3.11, Node 20, OpenJDK 17, GCC 12 with glibc 2.36.
"""

import pathlib
import re
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).parent
# In the standard library of Python 3.12 to 3.14, but not of 3.11.
LATER = ["annotationlib", "compression", "_colorize"]
JAVA = """
import java.lang.module.*;
public class Packages {
    public static void main(String[] arguments) {
        for (ModuleReference module : ModuleFinder.ofSystem().findAll())
            for (ModuleDescriptor.Exports exported : module.descriptor().exports())
                if (!exported.isQualified()) System.out.println(exported.source());
    }
}
"""
HEADERS = """assert ctype errno fenv float inttypes iso646 limits locale math setjmp stdarg stdbool stddef stdint stdio
stdlib string strings time wchar wctype unistd fcntl dirent getopt libgen sys/types sys/stat sys/time""".split()
KEYWORDS = set(
    """auto break case char const continue default do double else enum extern float for goto if inline int long register
restrict return short signed sizeof static struct switch typedef union unsigned void volatile while asm typeof""".split()
)


def run(*command, text=""):
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout


def write(name, lines, about):
    path = HERE / f"{name}.txt"
    path.write_text(f"# {about}\n" + "".join(f"{line}\n" for line in sorted(set(lines))))


def declared(header, predefined):
    source = f"#include <{header}.h>\n"
    body = re.sub(r'"[^"]*"', "", run("gcc", "-D_GNU_SOURCE", "-E", "-P", "-", text=source))
    words = set(re.findall(r"\b[A-Za-z_]\w*", body))
    words |= macros(source) - predefined
    # Names that are reserved for the compiler and the library say nothing of a program.
    return sorted(w for w in words if not re.match(r"__|_[A-Z]\w*_H(_|$)|_BITS", w) and w not in KEYWORDS)


def macros(source):
    return set(re.findall(r"^#define (\w+)", run("gcc", "-D_GNU_SOURCE", "-dM", "-E", "-", text=source), re.M))


public = [m for m in sys.stdlib_module_names if not m.startswith("_") or m in ("__future__", "_thread")]
write("python-standard", public + ["__main__"] + LATER[:2], "Python's standard library (sys.stdlib_module_names).")
node = run("node", "-p", "require('node:module').builtinModules.join('\\n')").split()
node = [name.split("/")[0] for name in node if not name.startswith("_")]
write("npm-standard", node + ["test", "sqlite", "sea"], "Node's own modules (module.builtinModules; the last three as node:...).")
with tempfile.TemporaryDirectory() as folder:
    source = pathlib.Path(folder) / "Packages.java"
    source.write_text(JAVA)
    write("java-standard", run("java", str(source)).split(), "Packages of the JDK's modules.")
predefined = macros("")
write(
    "c-headers",
    [f"{header}.h: {' '.join(declared(header, predefined))}" for header in HEADERS],
    "Names that a header declares, directly or not.",
)
