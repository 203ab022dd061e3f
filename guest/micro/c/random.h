/* The random generator: mixed from the entropy device at boot and from each new life's entropy, and
 * between those a pure function of its state, so that runs from a snapshot are repeatable when the
 * host wants them to be. It is not meant for cryptography. */
#pragma once
#include "types.h"

/* Mixes four words in. */
static void random_mix(const u8 *entropy);
static u64 random_next(void);
