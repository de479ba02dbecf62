#include "random/os_key.h"

#include <unistd.h>

#include "error.h"

#if defined(__APPLE__)
#include <sys/random.h>
#endif

namespace dp_moe {

void randomKey(uint8_t out[32]) {
  // getentropy waits until the kernel's generator is seeded and never gives fewer bytes than asked for.
  if (getentropy(out, 32) != 0) {
    throw Error("ENGINE", "The operating system gave no random bytes for a key: check that getrandom is permitted");
  }
}

}  // namespace dp_moe
