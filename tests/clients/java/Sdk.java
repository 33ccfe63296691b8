import software.amazon.awssdk.auth.credentials.DefaultCredentialsProvider;
import software.amazon.awssdk.regions.providers.DefaultAwsRegionProviderChain;

/** Credentials and region that the AWS SDK for Java v2 finds by itself. */
public final class Sdk {
    public static void main(String[] arguments) {
        var found = DefaultCredentialsProvider.builder().build().resolveCredentials();
        var region = DefaultAwsRegionProviderChain.builder().build().getRegion();
        System.out.println(found.accessKeyId() + " " + region + " " + found.expirationTime().orElseThrow());
    }
}
