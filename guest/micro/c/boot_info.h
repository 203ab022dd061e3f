/* What the loader says: the memory map and the command line, in the two forms of the two entries. */
#pragma once
#include "types.h"

/* Adds the RAM that the loader describes to the memory (memory_layout.h) and reads the command
 * line. `pvh` tells which of the two forms `info` has. */
static void boot_info_read(bool pvh, u64 info);
