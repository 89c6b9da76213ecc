# Installation: headers, libraries, emo.pc, the CMake package, the program.
