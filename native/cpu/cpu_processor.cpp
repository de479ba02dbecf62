#include "cpu_processor.h"

#include "dispatch.h"

namespace dp_moe {

CpuProcessor::CpuProcessor(int threads)
    : threads_(threads),
      info_{selectKernels().name, selectKernels().vectorWidth, threads},
      backend_(threads_, selectKernels()) {}

}  // namespace dp_moe
