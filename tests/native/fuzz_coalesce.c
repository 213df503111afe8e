/* libFuzzer's way into coalesce.c: any packets that a client could send. `make fuzz` */
#include "coalesce_check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    check_input(data, size);
    return 0;
}
