/* Checksums and the splitter under the sanitizers: buffers of exactly the size, every rest of a block,
 * and the fuzzer's seeds (the arguments) cut short and changed. Prints a line a test, and "ok all".
 */
#include "checksum.h"
#include "segment_check.h"

enum { SIZES = 300, ALIGNMENTS = 32, INPUT_MAX = 4096, CHANGED = 3000 };

static uint32_t random_state = 1;

static uint32_t random_number(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 17;
    random_state ^= random_state << 5;
    return random_state;
}

static uint32_t big_endian(uint64_t sum)
{
    uint16_t folded = checksum_fold(sum);
    return check_get((const uint8_t *)&folded, 2);
}

static void test_checksums(const char *routines)
{
    if (checksum_use(routines)) {
        printf("NOT TRIED: this CPU has no %s\n", routines);
        return;
    }
    for (size_t size = 0; size <= SIZES; size++) {
        for (size_t alignment = 0; alignment < ALIGNMENTS; alignment++) {
            uint8_t *from = malloc(alignment + size + 1), *to = malloc(ALIGNMENTS - alignment + size);
            CHECK(from && to);
            /* The last byte that may be touched is the last of its allocation. */
            uint8_t *data = from + alignment + 1, *copy = to + ALIGNMENTS - alignment;
            for (size_t i = 0; i < size; i++)
                data[i] = (uint8_t)random_number();
            uint32_t expected = check_sum(data, size, 0);
            CHECK(big_endian(checksum_add(data, size)) == expected);
            CHECK(big_endian(checksum_copy(copy, data, size)) == expected);
            CHECK(!memcmp(copy, data, size));
            free(from);
            free(to);
        }
    }
    CHECK(!checksum_use(NULL));
    printf("ok     checksums, %s\n", routines);
}

/* Cut short an input, and make the lengths within fit again. */
static void shorten(uint8_t *input, size_t size)
{
    uint8_t *packet = input + 10;
    if (size < 10 + 20 || (packet[0] >> 4 == 6 && size < 10 + 40))
        return;
    size -= 10;
    size_t length = packet[0] >> 4 == 4 ? size : size - 40, udp = input[6];
    uint8_t *field = packet + (packet[0] >> 4 == 4 ? 2 : 4);
    field[0] = (uint8_t)(length >> 8);
    field[1] = (uint8_t)length;
    if (input[1] == VNET_GSO_UDP_L4 && udp + 6 <= size) {
        packet[udp + 4] = (uint8_t)((size - udp) >> 8);
        packet[udp + 5] = (uint8_t)(size - udp);
    }
}

static void test_seed(const char *path)
{
    uint8_t seed[INPUT_MAX], input[INPUT_MAX];
    FILE *file = fopen(path, "rb");
    CHECK(file);
    size_t size = fread(seed, 1, sizeof seed, file);
    CHECK(!fclose(file) && size < sizeof seed);
    uint32_t pieces = check_input(seed, size), cut = 0;
    CHECK(pieces);
    for (size_t shorter = 0; shorter < size; shorter++) {
        memcpy(input, seed, size);
        check_input(input, shorter);
        shorten(input, shorter);
        check_input(input, shorter);
    }
    for (int i = 0; i < CHANGED; i++) {
        memcpy(input, seed, size);
        for (uint32_t changes = random_number() % 4 + 1; changes; changes--)
            input[random_number() % size] = (uint8_t)random_number();
        cut += check_input(input, size) > 0;
    }
    printf("ok     %u pieces, and of %d changed %u were cut: %s\n", pieces, CHANGED, cut, path);
}

int main(int count, char **paths)
{
    test_checksums("generic");
    test_checksums("avx2");
    CHECK(count > 1);
    for (int i = 1; i < count; i++)
        test_seed(paths[i]);
    printf("ok     all\n");
    return 0;
}
