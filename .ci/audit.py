"""Known vulnerabilities of the packages in constraints.txt, by pip-audit: `make check` and CI run it.

Exit status 1 for a finding alone, and 2 for wrong arguments. The service that knows them is on the network: where it does not
answer, that is one line and no failure, so that a machine without a network can still be checked. Further arguments go to
pip-audit, such as `-s osv`, or `--ignore-vuln ID` for one that does not concern excel.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

CONSTRAINTS = Path(__file__).parent.parent / "constraints.txt"


def main(arguments: list[str]) -> int:
    """Run pip-audit over the pinned versions, print what it says in short → the exit status."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(CONSTRAINTS), "--no-deps", "--disable-pip"]
    command += ["--progress-spinner", "off", "--format", "json", "--desc", "off", *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")  # noqa: S603  no shell; the caller's own arguments
    if ran.returncode == 2:  # wrong arguments
        print(ran.stderr, end="")
        return 2
    try:
        packages = json.loads(ran.stdout)["dependencies"]
    except ValueError:  # it printed no report
        last_line = ([line for line in ran.stderr.splitlines() if line.strip()] or ["no output"])[-1]
        print(f"pip-audit: no package was looked up, the service does not answer: {last_line}")
        return 0
    print("\n".join(report(packages)))
    return 1 if any(package.get("vulns") for package in packages) else 0


def report(packages: list[dict[str, Any]]) -> list[str]:
    """pip-audit's entries → a line for each finding, and one over all."""
    findings = [(package, found) for package in packages for found in package.get("vulns", [])]
    lines = [
        f"{package['name']} {package['version']}: {found['id']}; fixed in: {', '.join(found['fix_versions']) or 'no version'}"
        for package, found in findings
    ]
    unknown = sum("skip_reason" in package for package in packages)
    summary = f"pip-audit: {len(findings)} known vulnerabilities in {len(packages) - unknown} packages"
    if unknown:
        summary += f"; {unknown} more were not looked up: the service does not know them, or is not the public one"
    return [*lines, summary]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
