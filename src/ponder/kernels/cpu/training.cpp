// Rows in bfloat16.
#include "training.h"
