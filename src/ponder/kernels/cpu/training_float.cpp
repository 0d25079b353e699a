// Rows in float32, for processors without products of bfloat16 and for training in float32.
#define ROWS_IN_FLOAT
#include "training.h"
