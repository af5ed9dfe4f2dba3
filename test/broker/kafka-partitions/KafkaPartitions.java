// Prints partitions.json: the partitions that Java Kafka's own default partitioner gives to generated keys. README.md says how.

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.Base64;
import java.util.HexFormat;
import java.util.List;
import org.apache.kafka.clients.producer.internals.BuiltInPartitioner;
import org.apache.kafka.common.utils.AppInfoParser;

public class KafkaPartitions {
  static final int SEED = 20260214;
  static final int KEYS = 10_000;
  static final int[] COUNTS = {3, 8, 12, 10_000};
  /** First and last code points: ASCII, controls, Latin, combining, Greek, CJK, private use, emoji, all beyond the BMP. */
  static final int[][] RANGES = {
    {0x20, 0x7e}, {0x1, 0x1f}, {0xa0, 0x24f}, {0x300, 0x36f}, {0x370, 0x3ff}, {0x4e00, 0x9fff}, {0xe000, 0xfffd},
    {0x1f300, 0x1f6ff}, {0x10000, 0x10ffff}
  };

  static int state = SEED;

  /** mulberry32. */
  static int next() {
    state += 0x6d2b79f5;
    int z = state;
    z = (z ^ (z >>> 15)) * (z | 1);
    z ^= z + (z ^ (z >>> 7)) * (z | 61);
    return z ^ (z >>> 14);
  }

  static int below(int limit) {
    return Integer.remainderUnsigned(next(), limit);
  }

  /** The n-th key: now and then a long one, else up to 40 code points, of one range or of all. */
  static String key(int n) {
    int length = n % 100 == 99 ? 1_000 + below(1_000) : below(41);
    int range = below(RANGES.length + 1);
    StringBuilder key = new StringBuilder();
    for (int at = 0; at < length; at++) {
      int[] bounds = RANGES[range < RANGES.length ? range : below(RANGES.length)];
      key.appendCodePoint(bounds[0] + below(bounds[1] - bounds[0] + 1));
    }
    return key.toString();
  }

  /** A digit to the base of 36 for each key. */
  static String digits(List<byte[]> keys, int count) {
    StringBuilder text = new StringBuilder();
    for (byte[] key : keys) text.append(Character.forDigit(BuiltInPartitioner.partitionForKey(key, count), 36));
    return text.toString();
  }

  /** Two bytes for each key, the high one first. */
  static String base64(List<byte[]> keys, int count) {
    ByteBuffer partitions = ByteBuffer.allocate(2 * keys.size());
    for (byte[] key : keys) partitions.putShort((short) BuiltInPartitioner.partitionForKey(key, count));
    return Base64.getEncoder().encodeToString(partitions.array());
  }

  public static void main(String[] arguments) throws Exception {
    List<byte[]> keys = new ArrayList<>();
    MessageDigest digest = MessageDigest.getInstance("SHA-256");
    for (int n = 0; n < KEYS; n++) {
      byte[] bytes = key(n).getBytes(StandardCharsets.UTF_8);
      keys.add(bytes);
      digest.update(ByteBuffer.allocate(4).putInt(bytes.length).array());
      digest.update(bytes);
    }
    System.out.println("{");
    System.out.println("  \"kafkaClients\": \"" + AppInfoParser.getVersion() + "\",");
    System.out.println("  \"seed\": " + SEED + ",");
    System.out.println("  \"keys\": " + KEYS + ",");
    System.out.println("  \"sha256OfKeys\": \"" + HexFormat.of().formatHex(digest.digest()) + "\",");
    System.out.println("  \"partitions\": {");
    for (int at = 0; at < COUNTS.length; at++) {
      String text = COUNTS[at] <= 36 ? digits(keys, COUNTS[at]) : base64(keys, COUNTS[at]);
      System.out.println("    \"" + COUNTS[at] + "\": \"" + text + "\"" + (at == COUNTS.length - 1 ? "" : ","));
    }
    System.out.println("  }");
    System.out.println("}");
  }
}
