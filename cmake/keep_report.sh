#!/bin/sh
# Runs the CUDA compiler and keeps what ptxas says of the kernels' registers beside the object file, as FILE.o.report,
# for tests/cuda/resources.py; the rest of what is said is shown as ever.
object=
previous=
for argument in "$@"; do
    if [ "$previous" = -o ]; then object=$argument; fi
    previous=$argument
done
"$@" 2>"$object.report"
status=$?
grep -v -e '^ptxas info' -e 'bytes stack frame' -e '^Compile time' "$object.report" >&2
exit $status
