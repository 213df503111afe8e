/* libFuzzer's way into segment.c: any header and packet that the host could send. `make fuzz` */
#include "segment_check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    check_input(data, size);
    return 0;
}
